package chain

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Config says where things are, as this process sees them.
type Config struct {
	// Source is the plugin's binary in our image.
	Source string
	// BinDir and ConfDir are the node's directories.
	BinDir, ConfDir string
	// Entry is the plugin's configuration; its Type is also the binary's name.
	Entry Entry
	// Installed is told of each installation and its outcome; nil is nobody.
	Installed func(error)
	// Log is required.
	Log *slog.Logger
}

// Installer keeps the plugin installed.
type Installer struct {
	cfg   Config
	log   *slog.Logger
	ready atomic.Bool

	mu        sync.Mutex
	status    Status
	installed bool // once, at least
}

// Status is how the plugin's place in the chain is.
type Status struct {
	// Err is why it is not in place, or nil.
	Err error
	// Restored is how often it was put back after the first time, Last when.
	Restored int
	Last     time.Time
}

// Status tells what the last look found.
func (i *Installer) Status() Status {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.status
}

// New makes an installer that has done nothing yet.
func New(cfg Config) *Installer {
	if cfg.Installed == nil {
		cfg.Installed = func(error) {}
	}
	return &Installer{cfg: cfg, log: cfg.Log.With("component", "chain")}
}

// Ready reports whether the plugin is in place.
func (i *Installer) Ready() bool { return i.ready.Load() }

// How often is looked without being told: to bound how long a change that no
// notification told of can stand, and, on a node that has no inotify instance
// left for us, instead of notifications.
const (
	lookAgain = 30 * time.Second
	lookOften = 500 * time.Millisecond
)

// Run installs the plugin and puts it back whenever it is taken away, until ctx
// ends; what is installed then stays.
func (i *Installer) Run(ctx context.Context) error {
	every := lookAgain
	watch, err := i.watch()
	if err != nil {
		i.log.Warn("looking at the node's network configuration often instead of being told of changes", "error", err)
		watch, every = &fsnotify.Watcher{}, lookOften // it never tells
	} else {
		defer watch.Close()
	}
	again := time.NewTicker(every)
	defer again.Stop()
	var last string
	for {
		last = i.look(last)
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-watch.Events:
			if !ok {
				return errors.New("watching the node's network configuration ended")
			}
		case err := <-watch.Errors: // some change was not told: look too
			i.log.Warn("watching the node's network configuration", "error", err)
		case <-again.C:
		}
	}
}

// watch asks to be told of changes in both directories.
func (i *Installer) watch() (*fsnotify.Watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("asking for notifications: %w", err)
	}
	for _, dir := range []string{i.cfg.ConfDir, i.cfg.BinDir} {
		if err := w.Add(dir); err != nil {
			return nil, errors.Join(fmt.Errorf("watching %s: %w", dir, err), w.Close())
		}
	}
	return w, nil
}

// look installs and says once what is wrong.
func (i *Installer) look(last string) string {
	changed, err := i.install()
	i.ready.Store(err == nil)
	i.note(changed, err)
	switch {
	case err != nil && err.Error() != last:
		i.log.Warn("the plugin is not installed", "error", err)
		i.cfg.Installed(err)
	case err == nil && changed:
		i.log.Info("plugin installed")
		i.cfg.Installed(nil)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// note keeps what was found. What had been in place and had to be changed was
// taken out by somebody.
func (i *Installer) note(changed bool, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.status.Err = err; err == nil && changed && i.installed {
		i.status.Restored, i.status.Last = i.status.Restored+1, time.Now()
	}
	i.installed = i.installed || err == nil
}

// install brings both about, the binary first.
func (i *Installer) install() (changed bool, err error) {
	binary, err := copyBinary(i.cfg.Source, i.binary())
	if err != nil {
		return false, err
	}
	files, err := readConfs(i.cfg.ConfDir)
	if err != nil {
		return binary, err
	}
	c, err := Plan(files, i.cfg.Entry)
	if err != nil {
		return binary, err
	}
	return binary || len(c.Write)+len(c.Remove) > 0, c.apply(i.cfg.ConfDir)
}

func (i *Installer) binary() string { return filepath.Join(i.cfg.BinDir, i.cfg.Entry.Type) }

// Uninstall takes the plugin out of the chain, and then off the node. Run must
// not be running.
func (i *Installer) Uninstall() error {
	i.ready.Store(false)
	files, err := readConfs(i.cfg.ConfDir)
	if err != nil {
		return err
	}
	if err := Unplan(files, i.cfg.Entry.Type).apply(i.cfg.ConfDir); err != nil {
		return err
	}
	if err := os.Remove(i.binary()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the plugin: %w", err)
	}
	i.log.Info("plugin removed")
	return nil
}
