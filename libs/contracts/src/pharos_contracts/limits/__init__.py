"""What gateways share of limits."""
