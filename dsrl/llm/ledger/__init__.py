"""What calls cost, and the budget that limits them."""
