"""Links in other forms: the released layout, the hub, model cards."""
