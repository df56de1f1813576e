"""Takes secrets out of recordings."""
