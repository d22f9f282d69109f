package apiserver

import (
	"os/exec"
	"runtime"
	"syscall"
)

// StartTied starts a program that the kernel kills when this process dies, and
// gives a channel that is closed when the program has ended.
//
// To the kernel the parent is the thread that started the program, not the
// process (prctl(2), PR_SET_PDEATHSIG), and Go ends threads that were in a
// network namespace of their own. So one thread does nothing but wait for it.
func StartTied(cmd *exec.Cmd) (done <-chan struct{}, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started, ended := make(chan error), make(chan struct{})
	go func() { // ends with the program, which is the caller's to stop
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	return ended, <-started
}
