package admin

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
)

// Levels are log levels by component that can be changed while running, as
// "info,access=debug". Its Handler asks them for each record.
type Levels struct {
	initial levels
	current atomic.Pointer[levels]
}

// levels is immutable.
type levels struct {
	base        slog.Level
	byComponent map[string]slog.Level
	lowest      slog.Level
}

// ParseLevels reads the text form; empty is info.
func ParseLevels(text string) (*Levels, error) {
	l, err := parseLevels(text)
	if err != nil {
		return nil, err
	}
	out := &Levels{initial: *l}
	out.current.Store(l)
	return out, nil
}

func parseLevels(text string) (*levels, error) {
	l := &levels{byComponent: map[string]slog.Level{}}
	for part := range strings.SplitSeq(text, ",") {
		component, word, named := strings.Cut(strings.TrimSpace(part), "=")
		if !named {
			component, word = "", component
		}
		level, err := parseLevel(word)
		if err != nil {
			return nil, err
		}
		if named {
			l.byComponent[component] = level
		} else {
			l.base = level
		}
	}
	l.lowest = l.base
	for _, v := range l.byComponent {
		l.lowest = min(l.lowest, v)
	}
	return l, nil
}

// levelOff is above every record.
const levelOff = slog.Level(100)

func parseLevel(word string) (slog.Level, error) {
	switch strings.ToLower(word) {
	case "", "info":
		return slog.LevelInfo, nil
	case "trace", "debug":
		return slog.LevelDebug, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	case "off":
		return levelOff, nil
	}
	return 0, fmt.Errorf("log level %q: want debug, info, warn, error or off", word)
}

// Set changes the levels to those of text.
func (l *Levels) Set(text string) error {
	next, err := parseLevels(text)
	if err != nil {
		return err
	}
	l.current.Store(next)
	return nil
}

// Reset goes back to what was parsed first.
func (l *Levels) Reset() { l.current.Store(&l.initial) }

// String is the text form of the current levels.
func (l *Levels) String() string {
	c := l.current.Load()
	parts := []string{levelName(c.base)}
	for _, name := range slices.Sorted(maps.Keys(c.byComponent)) {
		parts = append(parts, name+"="+levelName(c.byComponent[name]))
	}
	return strings.Join(parts, ",")
}

func levelName(l slog.Level) string {
	if l == levelOff {
		return "off"
	}
	return strings.ToLower(l.String())
}

// Handler puts the levels in front of h, which must let everything pass. The
// attribute "component" of a logger decides which level holds.
func (l *Levels) Handler(h slog.Handler) slog.Handler { return &levelHandler{h, l, ""} }

// Logger writes to w what the levels let pass: as JSON if the format is json,
// else as text.
func (l *Levels) Logger(w io.Writer, format string) *slog.Logger {
	all := &slog.HandlerOptions{Level: slog.Level(-100)} // the levels are in front
	if format == "json" {
		return slog.New(l.Handler(slog.NewJSONHandler(w, all)))
	}
	return slog.New(l.Handler(slog.NewTextHandler(w, all)))
}

type levelHandler struct {
	slog.Handler
	levels    *Levels
	component string
}

func (h *levelHandler) Enabled(_ context.Context, level slog.Level) bool {
	c := h.levels.current.Load()
	if level < c.lowest {
		return false
	}
	if own, ok := c.byComponent[h.component]; ok {
		return level >= own
	}
	return level >= c.base
}

func (h *levelHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	component := h.component
	for _, a := range attrs {
		if a.Key == "component" {
			component = a.Value.String()
		}
	}
	return &levelHandler{h.Handler.WithAttrs(attrs), h.levels, component}
}

func (h *levelHandler) WithGroup(name string) slog.Handler {
	return &levelHandler{h.Handler.WithGroup(name), h.levels, h.component}
}
