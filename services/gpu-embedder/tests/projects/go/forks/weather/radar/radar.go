package radar

func Image() []byte { return nil }
