"""Links as others have them: the released layout, the hub, model cards."""
