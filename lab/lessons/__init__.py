"""A course of twelve lessons: predict, measure in the lab, and solve an exercise that a checker verifies."""

from lessons.course import Course, CourseError, Unit
from lessons.exercises import EXERCISES, Exercise, Finding, draw
from lessons.progress import Progress, ProgressError, Record

__all__ = [
    "EXERCISES",
    "Course",
    "CourseError",
    "Exercise",
    "Finding",
    "Progress",
    "ProgressError",
    "Record",
    "Unit",
    "draw",
]
