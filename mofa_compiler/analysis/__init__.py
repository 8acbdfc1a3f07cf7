"""What a traced network is made of: its U, its layers and their neighbours, what they cost."""
