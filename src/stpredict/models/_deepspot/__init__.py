"""Import of the weights that DeepSpot's authors released."""
