"""What training minimises: the inner and the outer objective."""
