"""Drawing shared by the plots."""
