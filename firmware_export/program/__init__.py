"""What a network is to firmware: stages, views, the order of rows, and which code computes a stage."""
