"""From a version's folder to a loaded version that has answered its warm-up requests."""
