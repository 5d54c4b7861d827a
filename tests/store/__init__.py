"""The stores, the projections in them, verification and backup."""
