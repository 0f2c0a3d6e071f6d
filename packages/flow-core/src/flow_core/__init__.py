"""Apps, futures, files and the dataflow kernel of Flow; runs alone with its own thread executor."""
