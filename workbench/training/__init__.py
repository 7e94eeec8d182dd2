"""Training and unlearning: objectives, the sets they train on, the loop, and the memory it needs."""
