"""OAuth access tokens: where they come from, how they are refreshed, how threads share them."""
