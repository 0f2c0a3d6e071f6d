"""What a manager writes to its job's standard error while it reaches no interchange, and the scaler looks for there."""

NOT_REACHED = "the script has not been reached yet; tried: "
"""What such a line has before the addresses."""
