"""Progress of a run where its user looks: a bar on a terminal, a table in a notebook, a line a minute elsewhere."""

from flow.progress.bar import ProgressBar as ProgressBar
