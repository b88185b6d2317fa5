"""What a network is to firmware: stages, views, the order of rows, and which stages have fast code."""
