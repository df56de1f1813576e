"""Google's services: what each one is sent, and how its answers are read."""
