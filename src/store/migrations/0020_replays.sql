-- Which job this one repeats, when somebody asked for it again.
ALTER TABLE jobs ADD COLUMN replay_of TEXT;
