"""When the next request may be sent: what an endpoint bears, and whether it is down."""
