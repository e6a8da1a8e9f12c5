"""Every figure that the project promises, measured here and now, as a ratio to a floor measured in the same run."""
