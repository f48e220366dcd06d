"""SkillPack: factors of low rank with few bits an entry."""
