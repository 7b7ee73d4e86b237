"""What serves requests, behind one seam: submit and wait. tensorrt is imported here and nowhere else, lazily."""
