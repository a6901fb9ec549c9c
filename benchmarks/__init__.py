"""What the package costs, measured beside the same work without it and beside its peers."""
