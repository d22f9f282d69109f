package images

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Shifted is the image of a ztunnel for nodes whose clock is wrong. A machine has
// one clock for all of its nodes, so the program reads it wrong: it is built with a
// package time of which Now is off by as many seconds as ShiftEnv says for the
// node that NODE_NAME names, "node=-600,other=600". What is left of a timer is
// right, as it is where only the wall clock is wrong.
const (
	Shifted  = "ztunnel-shifted"
	ShiftEnv = "CLOCK_SHIFT"
)

// reads is where package time reads the wall clock, once.
const reads = "\tsec, nsec, mono := runtimeNow()\n"

const shifting = `package time

import "syscall"

var shifted = readShift()

func readShift() (seconds int64) {
	node, _ := syscall.Getenv("NODE_NAME")
	list, _ := syscall.Getenv("` + ShiftEnv + `")
	for list != "" {
		entry := list
		for i := range len(list) {
			if list[i] == ',' {
				entry = list[:i]
				break
			}
		}
		list = list[min(len(entry)+1, len(list)):]
		if len(entry) <= len(node) || entry[:len(node)] != node || entry[len(node)] != '=' {
			continue
		}
		sign, digits := int64(1), entry[len(node)+1:]
		if digits != "" && digits[0] == '-' {
			sign, digits = -1, digits[1:]
		}
		for _, c := range digits {
			seconds = 10*seconds + int64(c-'0')
		}
		return sign * seconds
	}
	return 0
}
`

// shift writes an overlay with which go build makes programs of the wrong clock.
func shift(ctx context.Context, work string) (overlay string, err error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	place := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	src, err := os.ReadFile(filepath.Join(place, "time.go"))
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(src), reads); n != 1 {
		return "", fmt.Errorf("package time reads the clock in %d places as this package knows it, want one: has Go changed it?", n)
	}
	dir := filepath.Join(work, "shift")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	replace := map[string]string{}
	for name, text := range map[string]string{
		"time.go":  strings.Replace(string(src), reads, reads+"\tsec += shifted\n", 1),
		"shift.go": shifting,
	} {
		file := filepath.Join(dir, name+".overlay") // no package of the checkout it lies in
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(place, name)] = file
	}
	body, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, body, 0o644)
}
