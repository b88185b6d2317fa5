"""What a conversion loses, where, why, and what it costs."""
