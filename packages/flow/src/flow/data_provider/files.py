"""The File class, under the path that scripts use."""

from flow_core.files import Directory as Directory, File as File, Glob as Glob
