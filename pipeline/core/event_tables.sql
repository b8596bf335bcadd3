CREATE TABLE streams (id INTEGER PRIMARY KEY, name TEXT NOT NULL, began TEXT NOT NULL);
CREATE TABLE events (id INTEGER PRIMARY KEY, stream INTEGER NOT NULL REFERENCES streams, time TEXT, label TEXT NOT NULL,
  start REAL NOT NULL, end REAL NOT NULL, peak REAL NOT NULL, score REAL NOT NULL, details TEXT);
CREATE TABLE gaps (id INTEGER PRIMARY KEY, stream INTEGER NOT NULL REFERENCES streams, time TEXT, start REAL NOT NULL,
  length REAL NOT NULL, why TEXT NOT NULL, how TEXT NOT NULL);
CREATE TABLE warnings (id INTEGER PRIMARY KEY, stream INTEGER NOT NULL REFERENCES streams, time TEXT,
  start REAL NOT NULL, code TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE clips (id INTEGER PRIMARY KEY, stream INTEGER NOT NULL REFERENCES streams, label TEXT NOT NULL,
  start REAL NOT NULL, first REAL NOT NULL, last REAL NOT NULL, path TEXT NOT NULL);
CREATE INDEX events_time ON events (time);
CREATE INDEX events_label ON events (label, time);
CREATE INDEX clips_event ON clips (stream, label, start);
CREATE INDEX events_stream ON events (stream, label, start);
