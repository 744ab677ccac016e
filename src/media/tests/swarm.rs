//! Seeded swarms.
