package linux

import "testing"

func TestOnlyWhatNobodyWritesIsReleased(t *testing.T) {
	const program = "/usr/bin/istiod"
	for _, tt := range []struct {
		line       string
		start, end uintptr
		want       bool
	}{
		{"00400000-021ab000 r-xp 00000000 fe:00 10945297   /usr/bin/istiod", 0x400000, 0x21ab000, true},
		{"021ab000-0476e000 r--p 01dab000 fe:00 10945297   /usr/bin/istiod", 0x21ab000, 0x476e000, true},
		{"0476e000-04842000 rw-p 0436e000 fe:00 10945297   /usr/bin/istiod", 0, 0, false},
		{"04842000-048a0000 rw-p 00000000 00:00 0 ", 0, 0, false},
		{"7f0000000000-7f0000001000 r-xp 00000000 fe:00 7   /usr/lib/libc.so", 0, 0, false},
	} {
		start, end, ok := programPart(tt.line, program)
		if start != tt.start || end != tt.end || ok != tt.want {
			t.Errorf("%s: %x to %x, %v", tt.line, start, end, ok)
		}
	}
}

func TestAProgramGoesOnAfterItsRelease(t *testing.T) {
	for range 3 {
		if err := ReleaseProgram(); err != nil {
			t.Fatal(err)
		}
	}
}
