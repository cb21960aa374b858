"""The parts a stack is made of; each is one Pulumi component with typed arguments."""
