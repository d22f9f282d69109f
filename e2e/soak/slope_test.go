package soak

import (
	"math/rand/v2"
	"testing"
)

// memory is samples of a heap in kB over an hour: what it is made of, and noise
// upwards of up to 500 kB.
func memory(seed uint64, of func(hour float64) float64) (x, y []float64) {
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range 60 {
		hour := float64(i) / 60
		x, y = append(x, hour), append(y, 20_000+of(hour)+500*r.Float64()*r.Float64())
	}
	return x, y
}

func TestALeakIsToldFromNoiseAndSteps(t *testing.T) {
	const limit, rounds = 1000, 200 // kB in an hour
	for _, tt := range []struct {
		name string
		of   func(hour float64) float64
		// least and most are how many of the rounds may find a leak.
		least, most int
	}{
		{"nothing but noise", func(float64) float64 { return 0 }, 0, 0},
		{"a slope below the limit", func(h float64) float64 { return 700 * h }, 0, 0},
		{"a table that doubled once", func(h float64) float64 {
			if h > 0.5 {
				return 2000
			}
			return 0
		}, 0, 0},
		{"a cache that is filled and emptied", func(h float64) float64 { return 3000 * (h*10 - float64(int(h*10))) }, 0, 2},
		{"a leak of twice the limit", func(h float64) float64 { return 2000 * h }, rounds, rounds},
		{"a leak below a cache that is filled and emptied", func(h float64) float64 { return 6000*h + 1000*(h*15-float64(int(h*15))) }, rounds - 5, rounds},
	} {
		found := 0
		for seed := range rounds {
			x, y := memory(uint64(seed), tt.of)
			if Fit(Floor(x, y, 12)).Low > limit {
				found++
			}
		}
		if found < tt.least || found > tt.most {
			t.Errorf("%s: a leak was found in %d of %d rounds, want %d to %d", tt.name, found, rounds, tt.least, tt.most)
		}
	}
}

func TestASlopeLiesInItsInterval(t *testing.T) {
	s := Fit([]float64{0, 1, 2, 3, 4, 5}, []float64{0, 2, 4, 100, 8, 10})
	if s.Value != 2 || s.Low > 2 || s.High < 2 {
		t.Errorf("%+v, want 2 in spite of one wild point", s)
	}
	if s := Fit([]float64{1}, []float64{1}); s.Low > 0 || s.High < 0 {
		t.Errorf("one point has a slope of %+v", s)
	}
}
