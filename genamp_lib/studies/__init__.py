"""What chapters compute of their cases with everything below: kept, resumed. Not for figures."""
