"""The work of verbs that is more than a verb: pictures through a bundle, generated scenes on the simulation."""
