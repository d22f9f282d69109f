package machine

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How patient the supervisor is.
const (
	restartDelay    = 500 * time.Millisecond // between the end of a service and its next start
	restartDelayMax = 8 * time.Second        // when it ends again and again
	healthyAfter    = 20 * time.Second       // a service that lived this long is patient again
	shutdownGrace   = 5 * time.Second        // for the services, and again for everything else
)

// supervisor is the state of PID 1. One goroutine owns it: the loop in run.
type supervisor struct {
	log      *slog.Logger
	services []*service
}

type service struct {
	Service
	pid     int // 0 while it does not run
	awaited bool
	started time.Time
	next    time.Time // when it may start again
	delay   time.Duration
}

// supervise runs services until SIGTERM or SIGINT, restarts those that end, and
// reaps every orphan of the machine.
func supervise(services []Service, log *slog.Logger) error {
	s := &supervisor{log: log}
	for _, svc := range services {
		s.services = append(s.services, &service{Service: svc, delay: restartDelay})
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		s.startDue(time.Now())
		select {
		case <-children:
			s.reap(time.Now())
		case <-tick.C:
		case sig := <-stop:
			log.Info("shutting down", "signal", sig.String())
			s.shutdown(children)
			return nil
		}
	}
}

// startDue starts, in order, each service that should run and does not. A
// service whose awaited path is missing holds back only itself.
func (s *supervisor) startDue(now time.Time) {
	for _, svc := range s.services {
		if svc.pid != 0 || now.Before(svc.next) {
			continue
		}
		if !svc.awaited && !present(svc.Await) {
			continue
		}
		svc.awaited = true
		if err := svc.start(now); err != nil {
			s.log.Error("service does not start", "service", svc.Name, "error", err)
			svc.backOff(now)
			continue
		}
		s.log.Info("service started", "service", svc.Name, "pid", svc.pid)
	}
}

// present reports whether what a service awaits is there: a path, or a TCP
// listener ("tcp:" and an address). It is asked ten times a second, so it must
// not wait for long.
func present(what string) bool {
	if what == "" {
		return true
	}
	if addr, ok := strings.CutPrefix(what, "tcp:"); ok {
		conn, err := net.DialTimeout("tcp", addr, 50*time.Millisecond)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	}
	_, err := os.Stat(what)
	return err == nil
}

func (v *service) start(now time.Time) error {
	program := filepath.Join(BinDir, cmp.Or(v.Program, v.Args[0]))
	log, err := os.OpenFile(filepath.Join(LogDir, v.Name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := os.StartProcess(program, v.Args, &os.ProcAttr{
		Dir: "/", Env: append(os.Environ(), v.Env...),
		Files: []*os.File{null, log, log},
		Sys:   &unix.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	v.pid, v.started = p.Pid, now
	return p.Release() // reaped below, with every other child
}

func (v *service) backOff(now time.Time) {
	v.next = now.Add(v.delay)
	v.delay = min(2*v.delay, restartDelayMax)
}

// reap buries every child that has ended.
func (s *supervisor) reap(now time.Time) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		s.note(pid, status, now)
	}
}

func (s *supervisor) note(pid int, status unix.WaitStatus, now time.Time) {
	i := slices.IndexFunc(s.services, func(v *service) bool { return v.pid == pid })
	if i < 0 {
		return // an orphan that the machine adopted
	}
	svc := s.services[i]
	svc.pid = 0
	if now.Sub(svc.started) > healthyAfter {
		svc.delay = restartDelay
	}
	svc.backOff(now)
	s.log.Warn("service ended", "service", svc.Name, "pid", pid,
		"exit", status.ExitStatus(), "signal", int(status.Signal()), "after", now.Sub(svc.started).Round(time.Millisecond))
}

// shutdown ends the services, last first, then everything else.
func (s *supervisor) shutdown(children <-chan os.Signal) {
	for _, svc := range slices.Backward(s.services) {
		if svc.pid != 0 {
			_ = unix.Kill(svc.pid, unix.SIGTERM)
			s.awaitQuiet(children, func() bool { return svc.pid == 0 })
		}
	}
	_ = unix.Kill(-1, unix.SIGTERM)
	s.awaitQuiet(children, func() bool { return unix.Kill(-1, 0) == unix.ESRCH })
}

func (s *supervisor) awaitQuiet(children <-chan os.Signal, quiet func() bool) {
	deadline := time.NewTimer(shutdownGrace)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		s.reap(time.Now())
		if quiet() {
			return
		}
		select {
		case <-children:
		case <-tick.C:
		case <-deadline.C:
			return
		}
	}
}
