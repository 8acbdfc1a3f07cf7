"""Networks run and compared in float64."""
