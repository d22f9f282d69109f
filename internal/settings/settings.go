// Package settings owns the reading of what a program is told by named texts:
// numbers, durations and the like, and what is wrong with them by name.
//
// It refuses to look into the environment, which only commands do: they give
// it the look-up. The commands of ztunnel and of the waypoint call it.
package settings

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Reader reads settings and collects what is wrong with them. What is not set
// or wrong is the zero value.
type Reader struct {
	// Lookup gives a setting's text, empty if it is not set, as os.Getenv does.
	Lookup func(name string) string
	// Base is that of whole numbers; zero goes by their prefix, as in 0x539.
	Base int

	errs []error
}

// Err is all that was wrong, nil for nothing.
func (r *Reader) Err() error { return errors.Join(r.errs...) }

// Fail says what is wrong with a setting.
func (r *Reader) Fail(name string, err error) {
	r.errs = append(r.errs, fmt.Errorf("%s: %w", name, err))
}

// Number is a whole one that is not negative.
func (r *Reader) Number(name string) int {
	return read(r, name, func(text string) (int, error) {
		n, err := strconv.ParseInt(text, r.Base, 32)
		if err == nil && n < 0 {
			err = errors.New("is negative")
		}
		return int(n), err
	})
}

// Port is a TCP port.
func (r *Reader) Port(name string) uint16 {
	n := r.Number(name)
	if n > 65535 {
		r.Fail(name, errors.New("is no port"))
		return 0
	}
	return uint16(n)
}

// Share is a number from 0 to 1.
func (r *Reader) Share(name string) float64 {
	return read(r, name, func(text string) (float64, error) {
		v, err := strconv.ParseFloat(text, 64)
		if err == nil && !(v >= 0 && v <= 1) {
			err = errors.New("is no share from 0 to 1")
		}
		return v, err
	})
}

// Boolean is true or false, and unset if it is not set.
func (r *Reader) Boolean(name string, unset bool) bool {
	if r.Lookup(name) == "" {
		return unset
	}
	return read(r, name, strconv.ParseBool)
}

// Duration is a positive one, as "1m30s".
func (r *Reader) Duration(name string) time.Duration {
	return read(r, name, func(text string) (time.Duration, error) {
		d, err := time.ParseDuration(text)
		if err == nil && d <= 0 {
			err = errors.New("is not positive")
		}
		return d, err
	})
}

// read parses a setting that is set.
func read[T any](r *Reader, name string, parse func(text string) (T, error)) (value T) {
	text := r.Lookup(name)
	if text == "" {
		return value
	}
	parsed, err := parse(text)
	if err != nil {
		r.Fail(name, err)
		return value
	}
	return parsed
}
