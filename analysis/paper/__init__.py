"""The paper's seven questions and claims, their figures, and the page of verdicts."""
