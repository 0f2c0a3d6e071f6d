"""The futures of files, under the path that scripts use."""

from flow_core.futures.data_future import DataFuture as DataFuture
