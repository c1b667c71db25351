"""Sections of pages: each module registers its own (:mod:`safekey_interp.reporting.pages.page_sections`)."""
