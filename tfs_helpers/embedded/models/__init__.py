"""What is served: models, their versions and labels, and how these come and go."""
