//! Waiting and stopping.

/// Sleeps until an interrupt is pending, masked or not. Xen gives the processor to others meanwhile.
pub fn wait_for_interrupt() {
    arm_gic::wfi();
}

/// Powers the domain off through PSCI. Returns only if the firmware refuses.
pub fn power_off() {
    let _ = smccc::psci::system_off::<smccc::Hvc>();
}
