"""A vision-language model: how it is loaded, prompted, batched, answered with and adapted."""
