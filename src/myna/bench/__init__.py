"""The lecture's speed ladder, rung by rung, on whatever machine this is."""
