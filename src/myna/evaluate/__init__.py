"""A model to numbers and pictures: validation loss, HellaSwag, reports."""
