"""When the next request may be sent: concurrency, limits per minute, and outages."""
