"""What calls cost, and the budgets that bound them."""
