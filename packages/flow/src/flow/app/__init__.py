"""Apps and their futures and errors, under the paths that scripts use."""
